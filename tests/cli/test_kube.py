"""What control is told of the environment, so that a plug-in of a kubeconfig does in it what it did in `up`."""

import pytest

from sageserve.base.config import LiveSettings
from sageserve.cli.kube import cluster_variables
from tests.live.actuators.test_followed import fleet


def test_control_gets_what_plug_ins_of_clouds_read_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = {
        "KUBECONFIG": "/a",
        "KUBERNETES_SERVICE_HOST": "h",
        "AWS_PROFILE": "p",
        "AZURE_CLIENT_ID": "c",
        "AAD_LOGIN_METHOD": "spn",
        "GOOGLE_APPLICATION_CREDENTIALS": "/g",
        "CLOUDSDK_CONFIG": "/s",
    }
    monkeypatch.setattr("os.environ", {**passed, "HF_TOKEN": "x", "MY_AWS_KEY": "y", "LAWS_": "z"})
    live = fleet().live
    assert live is not None
    assert cluster_variables(live) == passed
    assert cluster_variables(LiveSettings()) == {}
