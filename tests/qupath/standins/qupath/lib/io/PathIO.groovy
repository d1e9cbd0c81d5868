package qupath.lib.io

import groovy.json.JsonSlurper
import java.nio.file.Path

/** Stands for QuPath's reader of objects, where QuPath itself cannot be had: it reads the same GeoJSON. */
class PathIO {
    static class Item {
        Map feature
        String name
        boolean locked
        Map measurements = [:]

        boolean isAnnotation() { feature.properties.objectType == "annotation" }

        def getID() { feature.id }
    }

    static List readObjects(Path path) {
        def content = new JsonSlurper().parse(path.toFile(), "UTF-8")
        assert content.type == "FeatureCollection"
        content.features.collect { feature ->
            assert feature.properties.objectType in ["annotation", "detection", "cell", "tile"]
            new Item(feature: feature, name: feature.properties.name, measurements: feature.properties.measurements ?: [:])
        }
    }
}
