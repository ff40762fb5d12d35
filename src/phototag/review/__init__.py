"""Corrections of labels by people: questions, answers, pages."""
