#!/usr/bin/env nextflow
// The cells of every slide of a folder, one task per slide, and a report of all.
//   nextflow run workflows/nextflow --slides 'slides/**.svs' --out results

nextflow.enable.dsl = 2

process SEGMENT {
    tag "${name}"
    label 'wsipipe'

    input:
    tuple val(name), val(slide)

    output:
    val name

    // Results are written where they belong, not in the task's own folder: a task that is tried again, or run again
    // with -resume, finds what the interrupted one has left, and goes on inside the slide.
    script:
    def out = file(params.out).toAbsolutePath()
    """
    mkdir -p "\$(dirname '${out}/${name}')"
    OMP_NUM_THREADS=${task.cpus} wsipipe segment '${slide}' -o '${out}/${name}.parquet' -o '${out}/${name}.geojson.gz' --model '${params.model}' ${params.options}
    """
}

process REPORT {
    label 'wsipipe'

    input:
    val names

    output:
    val true

    script:
    def out = file(params.out).toAbsolutePath()
    """
    wsipipe report '${out}' -o '${out}/report.html'
    """
}

workflow {
    def fixed = params.slides.split('[*?{\\[]')[0]  // what stands before the first star
    def root = file(params.root ?: fixed.substring(0, fixed.lastIndexOf('/') + 1) ?: '.').toAbsolutePath()
    slides = Channel
        .fromPath(params.slides, checkIfExists: true)
        .map { slide -> tuple(root.relativize(slide.toAbsolutePath()).toString(), slide.toAbsolutePath().toString()) }
    SEGMENT(slides)
    if (params.report) {
        REPORT(SEGMENT.out.collect())
    }
}
