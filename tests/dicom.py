"""A DICOM slide, written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def write_dicom(
    path: Path, rgb: NDArray[np.uint8], mpp: float, tile: int = 128, above: Sequence[NDArray[np.uint8]] = ()
) -> None:
    """Write a picture as one level of a DICOM slide, its tiles JPEG; with more focal planes *above* it, 2 µm apart."""
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage

    def nested(**values: Any) -> Dataset:
        found = Dataset()
        for name, value in values.items():
            setattr(found, name, value)
        return found

    height, width = rgb.shape[:2]
    down, across = -(-height // tile), -(-width // tile)
    frames = []
    for plane in (rgb, *above):
        padded = np.pad(plane, ((0, down * tile - height), (0, across * tile - width), (0, 0)), mode="edge")
        for k in range(down * across):
            y, x = k // across * tile, k % across * tile
            out = io.BytesIO()
            Image.fromarray(padded[y : y + tile, x : x + tile]).save(out, "JPEG", quality=90, subsampling=0)
            frames.append(out.getvalue())
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = VLWholeSlideMicroscopyImageStorage, JPEGBaseline8Bit
    meta.MediaStorageSOPInstanceUID = "1.2.3.1"
    measures = nested(PixelSpacing=[mpp / 1000, mpp / 1000], SliceThickness=0.001, SpacingBetweenSlices=0.002)
    shared = nested(
        PixelMeasuresSequence=[measures],
        OpticalPathIdentificationSequence=[nested(OpticalPathIdentifier="0")],
        WholeSlideMicroscopyImageFrameTypeSequence=[nested(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])],
    )
    illumination = nested(CodeValue="111744", CodingSchemeDesignator="DCM", CodeMeaning="Brightfield illumination")
    optics = nested(
        OpticalPathIdentifier="0", IlluminationTypeCodeSequence=[illumination], ObjectiveLensPower=20,
        IlluminationColorCodeSequence=[
            nested(CodeValue="414298005", CodingSchemeDesignator="SCT", CodeMeaning="Full Spectrum")
        ],
    )  # fmt: skip
    code = nested(CodeValue="119376003", CodingSchemeDesignator="SCT", CodeMeaning="Tissue")
    ds = nested(
        SOPClassUID=VLWholeSlideMicroscopyImageStorage, SOPInstanceUID="1.2.3.1", Modality="SM",
        StudyInstanceUID="1.2.3.2", SeriesInstanceUID="1.2.3.3", FrameOfReferenceUID="1.2.3.4", SeriesNumber=1,
        InstanceNumber=1, StudyDate="20200101", StudyTime="000000", ContentDate="20200101", ContentTime="000000",
        AcquisitionDateTime="20200101000000", PatientName="", PatientID="", Manufacturer="wsipipe",
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], PhotometricInterpretation="YBR_FULL",
        SamplesPerPixel=3, PlanarConfiguration=0, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0,
        Rows=tile, Columns=tile, NumberOfFrames=len(frames), TotalPixelMatrixColumns=width,
        TotalPixelMatrixRows=height, TotalPixelMatrixFocalPlanes=1 + len(above), NumberOfOpticalPaths=1,
        DimensionOrganizationType="TILED_FULL",
        DimensionOrganizationSequence=[nested(DimensionOrganizationUID="1.2.5")],
        ImagedVolumeWidth=width * mpp / 1000, ImagedVolumeHeight=height * mpp / 1000, ImagedVolumeDepth=0.001,
        SpecimenLabelInImage="NO", BurnedInAnnotation="NO", FocusMethod="AUTO", ExtendedDepthOfField="NO",
        VolumetricProperties="VOLUME", ImageOrientationSlide=[0, -1, 0, -1, 0, 0], ContainerIdentifier="c",
        LossyImageCompression="01", LossyImageCompressionRatio=10.0, LossyImageCompressionMethod="ISO_10918_1",
        TotalPixelMatrixOriginSequence=[nested(XOffsetInSlideCoordinateSystem=0.0, YOffsetInSlideCoordinateSystem=0.0)],
        SharedFunctionalGroupsSequence=[shared], OpticalPathSequence=[optics],
        SpecimenDescriptionSequence=[
            nested(SpecimenIdentifier="s", SpecimenUID="1.2.6", PrimaryAnatomicStructureSequence=[code])
        ],
    )  # fmt: skip
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].VR = "OB"
    ds.file_meta = meta
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
