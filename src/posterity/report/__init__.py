"""One self-contained page that shows how good predictions are, and where they should not be trusted."""

from posterity.report.data import LearntLatent as LearntLatent
from posterity.report.data import Model as Model
from posterity.report.data import ReportData as ReportData
from posterity.report.render import render as render
from posterity.report.render import write as write
