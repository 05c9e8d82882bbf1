"""Schemas as people write them, each with a question: what the tests and the benchmark of structured output ask for."""

from __future__ import annotations

SETUP = '''
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Optional, TypedDict
from pydantic import BaseModel


class Recipe(BaseModel):
    title: str
    minutes: int
    ingredients: list[str]


class Address(BaseModel):
    street: str
    city: str
    zip: Optional[str] = None


class Kind(str, Enum):
    person = "person"
    company = "company"


class Customer(BaseModel):
    name: str
    kind: Kind
    address: Address
    phone: Optional[str] = None


@dataclass
class Circle:
    shape: Literal["circle"]
    radius: float


@dataclass
class Rectangle:
    shape: Literal["rectangle"]
    width: float
    height: float


Shapes = list[Circle | Rectangle]


class Part(BaseModel):
    name: str
    parts: list["Part"] = []


class Story(TypedDict):
    text: str


Counts = dict[str, int]
'''
"""A cell that defines every type below."""

QUESTIONS = {
    "Recipe": "A recipe for pancakes.",
    "Customer": "A made-up customer of a bakery.",
    "Shapes": "Three shapes of different sizes.",
    "Part": "The parts of a bicycle, and their parts.",
    "Story": "Tell a long story about a lighthouse.",
    "Counts": "How many of each fruit are in a basket?",
}
"""Six types (nested, optional and enum, union, recursion, an unbounded string, a map) and what is asked."""
