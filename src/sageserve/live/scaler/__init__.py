"""KEDA's external scaler: an autoscaler of others asks how many instances a target should have, and is answered.

Nothing is written in any cluster: KEDA takes the largest of all triggers of a ScaledObject, so that ours can only add to what
the others ask for. Where nothing is known, no number is said. Read next: `answers.py` for what is said, `service.py` for how.
"""
