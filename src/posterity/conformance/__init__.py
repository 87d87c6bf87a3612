"""The laws that every method must keep, as functions that hold any library to them: see `posterity conformance`."""

from posterity.conformance.laws import LAWS as LAWS
from posterity.conformance.laws import judge as judge
from posterity.conformance.subject import Inferred as Inferred
from posterity.conformance.subject import Subject as Subject
from posterity.conformance.subject import Task as Task
from posterity.conformance.verdict import Verdict as Verdict
