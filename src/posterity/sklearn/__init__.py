"""Bayesian networks as scikit-learn estimators: a table in, a prediction with its uncertainty out."""

from posterity.sklearn.classifier import BayesianClassifier
from posterity.sklearn.columns import ColumnEncoder
from posterity.sklearn.regressor import BayesianRegressor

__all__ = ["BayesianClassifier", "BayesianRegressor", "ColumnEncoder"]
