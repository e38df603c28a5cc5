"""Floor 6: the exercise specs of each lesson, one module or package a topic.

A topic is found by its entry point in the group ``slmlab.exercises``; nothing is imported here, so
that one lesson never loads another's.
"""
