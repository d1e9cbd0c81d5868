/*
 * Finds the cells of the open image, or of all images of the project, with wsipipe, and brings them in: cells as
 * detections with their measurements, counts and densities as measurements of your annotations, and, if you like, what
 * is wrong with the slide (out of focus, pen, folds, bubbles, dust) as annotations. For QuPath 0.4 or newer: Automate > Script editor, open this file, Run.
 *
 * With annotations selected, cells are looked for in them alone. Running it again is quick: what is done is not done
 * twice. Files go to the folder `wsipipe` of the project, or of your home. For research use only: not for diagnosis.
 */
import qupath.lib.io.PathIO

import static qupath.lib.scripting.QP.*

// ---- what you may change ----------------------------------------------------------------------------------------
COMMAND = ["wsipipe"]        // how wsipipe is started; `wsipipe qupath-script` writes here where it is
OPTIONS = ["--model", "cmd-t"] // any option of `wsipipe segment`, such as "--mpp", "0.25" or "--expand-um", "5"
WHOLE_PROJECT = false        // true: all images of the project, saved as they are done
SELECTED_ONLY = true         // with annotations selected: only in them
QUALITY = false              // true: bring areas out of focus, pen, folds, ... in, as locked annotations
REPLACE = true               // detections that are there are removed first
// -----------------------------------------------------------------------------------------------------------------

OURS = "wsipipe: "
TURNED = ["RotatedImageServer", "CroppedImageServer", "AffineTransformImageServer", "SparseImageServer",
          "SlicedImageServer"]

/** Path of the file behind an image; its pixels must lie where the file has them. */
def fileOf(server) {
    def kind = server.getClass().getSimpleName()
    if (kind in TURNED)
        throw new IllegalStateException("This image is turned or cropped in QuPath (" + kind +
            "), so its coordinates differ from the file's: add it to the project as it is")
    def uris = server.getURIs()
    if (uris.size() != 1)
        throw new IllegalStateException("This image is made of " + uris.size() + " files; wsipipe reads one")
    def uri = uris.iterator().next()
    return uri.getScheme() == "file" ? new File(uri.getPath()).getPath() : uri.toString()
}

/** Run wsipipe and show what it says; its last line is the reason when it fails. */
def runWsipipe(List words) {
    def builder = new ProcessBuilder((COMMAND + words).collect { it.toString() })
    builder.environment().put("PYTHONUTF8", "1")
    def process
    try {
        process = builder.redirectErrorStream(true).start()
    } catch (IOException error) {
        throw new IllegalStateException("wsipipe does not start (" + error.getMessage() +
            "); write this script anew with: wsipipe qupath-script")
    }
    process.getOutputStream().close()
    def last = ""
    process.getInputStream().eachLine("UTF-8") { line ->
        println(line)
        if (line.trim()) last = line
    }
    def code = process.waitFor()
    if (code != 0)
        throw new IllegalStateException("wsipipe ended with code " + code + ": " + last)
}

/** Find the cells of one image and bring them in; returns how many. */
def cellsOf(imageData, String name, File folder, Collection selected) {
    def hierarchy = imageData.getHierarchy()
    def slide = fileOf(imageData.getServer())
    def stem = name.replaceAll("[^\\p{L}\\p{N}._-]+", "_")
    def parquet = new File(folder, stem + ".parquet"), cells = new File(folder, stem + ".geojson")
    def words = ["segment", slide, "-o", parquet, "-o", cells] + OPTIONS
    if (selected) {
        def drawn = new File(folder, stem + ".selected.geojson")
        exportObjectsToGeoJson(selected, drawn.getPath(), "FEATURE_COLLECTION")
        words += ["--tissue", drawn]
    }
    runWsipipe(words)

    def found = PathIO.readObjects(cells.toPath())
    if (REPLACE)
        hierarchy.removeObjects(hierarchy.getDetectionObjects(), true)

    def annotations = hierarchy.getAnnotationObjects().findAll { !it.getName()?.startsWith(OURS) }
    if (annotations) {
        def drawn = new File(folder, stem + ".annotations.geojson"), measured = new File(folder, stem + ".regions.geojson")
        exportObjectsToGeoJson(annotations, drawn.getPath(), "FEATURE_COLLECTION")
        runWsipipe(["summarise", parquet, "-o", measured, "--slide", slide, "--regions", drawn])
        def regions = PathIO.readObjects(measured.toPath())
        annotations.each { annotation ->
            def region = regions.find { it.getID() == annotation.getID() }
            region?.getMeasurements()?.each { key, value -> annotation.getMeasurements().put(OURS + key, value) }
        }
    }
    if (QUALITY) {
        def areas = new File(folder, stem + ".quality.geojson")
        runWsipipe(["quality", slide, "-o", areas])
        hierarchy.removeObjects(hierarchy.getAnnotationObjects().findAll { it.getName()?.startsWith(OURS) }, true)
        def faults = PathIO.readObjects(areas.toPath())
        faults.each { it.setName(OURS + it.getName()); it.setLocked(true) }
        hierarchy.addObjects(faults)
    }
    hierarchy.addObjects(found)
    println(name + ": " + found.size() + " cells, " + annotations.size() + " annotations measured")
    return found.size()
}

def project = getProject()
def folder = new File(project == null ? new File(System.getProperty("user.home")) : new File(buildFilePath(PROJECT_BASE_DIR)),
                      "wsipipe")
folder.mkdirs()
if (WHOLE_PROJECT && project != null) {
    def failed = [:]
    project.getImageList().each { entry ->
        try {
            def imageData = entry.readImageData()
            cellsOf(imageData, entry.getImageName() + "-" + entry.getID(), folder, [])
            entry.saveImageData(imageData)
        } catch (Exception error) {
            failed[entry.getImageName()] = error.getMessage() // one image never stops the others
        }
    }
    failed.each { name, reason -> println("FAILED " + name + ": " + reason) }
    if (failed)
        throw new IllegalStateException(failed.size() + " of " + project.getImageList().size() + " images failed, see above")
} else {
    def imageData = getCurrentImageData()
    if (imageData == null)
        throw new IllegalStateException("No image is open: open one, or set WHOLE_PROJECT = true")
    def entry = getProjectEntry()
    def name = entry == null ? imageData.getServer().getMetadata().getName() : entry.getImageName() + "-" + entry.getID()
    def selected = SELECTED_ONLY ? getSelectedObjects().findAll { it.isAnnotation() } : []
    cellsOf(imageData, name, folder, selected)
    fireHierarchyUpdate()
}
