"""Classes as QuPath derives them: a cell's type, and after it how it stained, as in "Tumor: Positive"."""

from __future__ import annotations

NEGATIVE, POSITIVE = "Negative", "Positive"
GRADES = (NEGATIVE, POSITIVE, "1+", "2+", "3+")
"""How a cell stained, by QuPath's names; all but the first are positive."""
BETWEEN = ": "


def split_class(name: str | None) -> tuple[str, str]:
    """Return type and grade of a class: ("Tumor", "2+") of "Tumor: 2+"; "" where a part is absent."""
    words = [word.strip() for word in (name or "").split(BETWEEN.strip()) if word.strip()]
    grade = words.pop() if words and words[-1] in GRADES else ""
    return BETWEEN.join(words), grade


def derived_class(type_: str, grade: str) -> str:
    """Return the class of a cell of *type_* ("" for none) that stained as *grade* says: "Tumor: Positive"."""
    return BETWEEN.join(part for part in (type_, grade) if part)


def is_positive(grade: str) -> bool:
    """Whether *grade* is one of the positive ones."""
    return grade in GRADES[1:]
