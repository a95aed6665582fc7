"""Register a model version whose files are in the datastore, as a script would after azcopy."""

from __future__ import annotations

import os

from azure.ai.ml import MLClient
from azure.ai.ml.entities import Model
from azure.identity import DefaultAzureCredential
from measure import arguments

given = arguments()
client = MLClient(
    DefaultAzureCredential(),
    os.environ["AZURE_SUBSCRIPTION_ID"],
    os.environ["AZURE_RESOURCE_GROUP"],
    os.environ["AZUREML_WORKSPACE_NAME"],
)
client.models.create_or_update(Model(name=given["name"], path=given["path"], type="custom_model"))
