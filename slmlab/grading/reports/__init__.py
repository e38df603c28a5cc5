"""What a grading run leaves for people and for other programs: a table for the LMS, a page a student,
a page for the class, and JSON for an audit. All of it is made from the grades and the overrides, and
holds nothing that varies from run to run."""

from slmlab.grading.reports.class_page import class_html
from slmlab.grading.reports.feedback import feedback_html
from slmlab.grading.reports.results import Results
from slmlab.grading.reports.summary import summary_json
from slmlab.grading.reports.table import grades_csv

__all__ = ["Results", "class_html", "feedback_html", "grades_csv", "summary_json"]
