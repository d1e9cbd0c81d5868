package qupath.lib.scripting

import groovy.json.JsonOutput
import qupath.lib.io.PathIO

/** Stands for QuPath's functions of scripts: one image that is open, its objects in a list. */
class QP {
    static final String PROJECT_BASE_DIR = "{%PROJECT}"
    static List objects = []

    static class OpenslideImageServer {
        def getURIs() { [new File(System.getProperty("slide")).toURI()] }

        def getMetadata() { [getName: { "my slide/1" }] as Named }
    }

    static class RotatedImageServer extends OpenslideImageServer {}

    interface Named { String getName() }

    static class Hierarchy {
        def getAnnotationObjects() { objects.findAll { it.isAnnotation() } }

        def getDetectionObjects() { objects.findAll { !it.isAnnotation() } }

        void removeObjects(Collection some, boolean keep) { objects.removeAll(some) }

        void addObjects(Collection some) { objects.addAll(some) }
    }

    static class ImageData {
        def getHierarchy() { new Hierarchy() }

        def getServer() { System.getProperty("turned") ? new RotatedImageServer() : new OpenslideImageServer() }
    }

    static {
        if (System.getProperty("drawn"))
            objects.addAll(PathIO.readObjects(new File(System.getProperty("drawn")).toPath()))
    }

    static getProject() { null }

    static getProjectEntry() { null }

    static getCurrentImageData() { new ImageData() }

    static List getSelectedObjects() { System.getProperty("selected") ? objects.findAll { it.isAnnotation() } : [] }

    static String buildFilePath(String... parts) { parts.join(File.separator) }

    static void exportObjectsToGeoJson(Collection some, String path, String... options) {
        new File(path).setText(JsonOutput.toJson([type: "FeatureCollection", features: some*.feature]), "UTF-8")
    }

    static void fireHierarchyUpdate() {
        def told = objects.collect { [id: it.ID, kind: it.feature.properties.objectType, name: it.name, locked: it.locked,
                                      measurements: it.measurements] }
        new File(System.getProperty("told")).setText(JsonOutput.toJson(told), "UTF-8")
    }
}
