"""The local AWS of `cargo xtask`: runs the emulator, and deploys template.yaml into it.

    local_stack.py serve   runs the emulator until its stdin ends
    local_stack.py deploy  reads a request (JSON) from stdin, prints the stack (JSON)

Both keep to the standard library and to what requirements.txt pins.
"""

import hashlib
import io
import json
import os
import re
import secrets
import signal
import sys
import threading
import time
import urllib.request
import zipfile
from pathlib import Path

REGION = "us-east-1"
STACK = "render-relay-local"
PREFIX = f"/render-relay/{STACK}"
# What the simulator takes as an API key, whatever the provider.
PROVIDER_KEY = "sim-key"
PROVIDERS = ("json2video", "renderio", "shotstack", "viralsync", "zvid")
FUNCTIONS = ("submit", "poller", "webhook", "deliver", "jobs")
# The parameters that limit the event sources of `deliver`.
LANES = ("DeliveryConcurrency", "SlowDeliveryConcurrency")
DEPLOY_SECONDS = 300


def serve():
    """Runs the emulator, configured by the environment, and ends with the caller.

    The emulator starts every function as a plain child process. A process group
    of our own, killed as a whole, is what keeps none of them behind; that stdin
    ends is the one sign that reaches us however the caller died.
    """
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    # The emulator takes these two over once it listens; until then they are ours.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _kill_group())
    from ministack.app import main

    sys.argv = ["ministack"]
    try:
        main()
    finally:
        _kill_group()


def _end_with_stdin():
    while sys.stdin.buffer.read1(4096):
        pass
    _kill_group()


def _kill_group():
    # Nothing in it is worth an orderly end: the state is in memory and thrown away.
    os.killpg(os.getpgrp(), signal.SIGKILL)


def deploy(request):
    """Deploys the template and what the demo and the tests need beside it.

    `request` names the `endpoint`, the `template` file, the function `binaries` by
    name, the template's `parameters`, the installation's own `providerSpecs` by
    provider, the `keyHost` that all providers are at, and the `webhookSecrets` by provider.
    """
    import boto3
    from botocore.config import Config

    def client(service):
        return boto3.client(
            service,
            endpoint_url=request["endpoint"],
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    parameters = request["parameters"]
    template = _with_numbers(Path(request["template"]).read_text(), parameters)
    template = _upload(client("s3"), template, request["binaries"])
    url = f"{request['endpoint']}/{template}"
    outputs = _create_stack(client("cloudformation"), url, parameters)
    if outputs["ParameterPrefix"] != PREFIX:
        raise SystemExit(f"the stack's parameters are not below {PREFIX}")
    specs = request["providerSpecs"]
    providers = [*PROVIDERS, *specs]
    _put_parameters(client("ssm"), providers, request["keyHost"], request["webhookSecrets"])
    api_key = _put_api_key(client("dynamodb"), outputs["TableName"])
    _put_specs(outputs["ApiUrl"], api_key, specs)
    demo_queue_url = _watch_bus(client("sqs"), client("events"), outputs["BusName"])
    return {
        "apiUrl": outputs["ApiUrl"],
        "apiKey": api_key,
        "region": REGION,
        "stackName": STACK,
        "tableName": outputs["TableName"],
        "busName": outputs["BusName"],
        "deliveryQueueUrl": outputs["DeliveryQueueUrl"],
        "wakeQueueUrl": outputs["WakeQueueUrl"],
        "deadLetterQueueUrl": outputs["DeadLetterQueueUrl"],
        "parameterPrefix": outputs["ParameterPrefix"],
        "functions": {name: outputs[f"{name.title()}FunctionName"] for name in FUNCTIONS},
        "demoQueueUrl": demo_queue_url,
    }


def _with_numbers(template, parameters):
    """Answers the template with the lanes' limits as numbers: the emulator leaves a
    parameter a text, and its event source then fails."""
    for name in LANES:
        template, found = re.subn(
            rf"(MaximumConcurrency:) !Ref {name}\b", rf"\1 {parameters[name]}", template
        )
        if found != 1:
            raise SystemExit(f"template.yaml uses {name} {found} times, not once")
    return template


def _upload(s3, template, binaries):
    """Uploads the functions, and the template with each `CodeUri` folder replaced by its
    zip: it is longer than a call may carry. Answers the template's path."""
    bucket = "artefacts"
    s3.create_bucket(Bucket=bucket)
    for name in FUNCTIONS:
        s3.put_object(Bucket=bucket, Key=f"{name}.zip", Body=_zipped(binaries[name]))
        template, found = re.subn(
            rf"(?m)^(\s+CodeUri:) functions/{name}$", rf"\1 s3://{bucket}/{name}.zip", template
        )
        if found != 1:
            raise SystemExit(f"template.yaml names functions/{name} {found} times, not once")
    s3.put_object(Bucket=bucket, Key="template.yaml", Body=template.encode())
    return f"{bucket}/template.yaml"


def _zipped(binary):
    bootstrap = zipfile.ZipInfo("bootstrap")
    bootstrap.external_attr = 0o100755 << 16
    # Stored: it travels over loopback, so compressing would only cost time.
    bootstrap.compress_type = zipfile.ZIP_STORED
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr(bootstrap, Path(binary).read_bytes())
    return archive.getvalue()


def _create_stack(cloudformation, template_url, parameters):
    cloudformation.create_stack(
        StackName=STACK,
        TemplateURL=template_url,
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        Parameters=[
            {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
        ],
    )
    deadline = time.monotonic() + DEPLOY_SECONDS
    while True:
        stack = cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]
        if stack["StackStatus"] == "CREATE_COMPLETE":
            return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        if stack["StackStatus"] != "CREATE_IN_PROGRESS" or time.monotonic() > deadline:
            raise SystemExit(_why(cloudformation, stack))
        time.sleep(0.05)


def _why(cloudformation, stack):
    events = cloudformation.describe_stack_events(StackName=STACK)["StackEvents"]
    reasons = [
        f"  {event['LogicalResourceId']}: {event['ResourceStatusReason']}"
        for event in reversed(events)
        if event.get("ResourceStatusReason")
    ]
    return "\n".join([f"the stack is {stack['StackStatus']}", *reasons])


def _put_specs(api_url, api_key, specs):
    for provider, spec in specs.items():
        request = urllib.request.Request(
            f"{api_url}/v1/providers/{provider}",
            data=spec.encode(),
            method="PUT",
            headers={"authorization": f"Bearer {api_key}", "content-type": "application/json"},
        )
        # The first request starts the function.
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()


def _put_parameters(ssm, providers, key_host, webhook_secrets):
    """Stores the providers' keys with the host that they are for, and the secrets that
    they sign callbacks with."""
    for provider in providers:
        ssm.put_parameter(
            Name=f"{PREFIX}/providers/{provider}/api-key",
            Type="SecureString",
            Value=json.dumps({"key": PROVIDER_KEY, "hosts": [key_host]}),
        )
    for provider, secret in webhook_secrets.items():
        ssm.put_parameter(
            Name=f"{PREFIX}/providers/{provider}/webhook-secrets", Type="SecureString", Value=secret
        )


def _put_api_key(dynamodb, table):
    """Stores a fresh API key that may do everything, as `relay key create --table` does;
    answers the key."""
    api_key = f"rr_{secrets.token_hex(32)}"
    item = {
        "pk": {"S": "api-keys"},
        "sk": {"S": "local"},
        "id": {"S": f"key_{secrets.token_hex(16)}"},
        "owner": {"S": "cargo xtask"},
        "scopes": {"L": [{"S": scope} for scope in ("submit", "read", "operate", "admin")]},
        "sha256": {"S": hashlib.sha256(api_key.encode()).hexdigest()},
        "created_at": {"N": str(int(time.time() * 1000))},
        "created_by": {"S": "operator"},
    }
    dynamodb.put_item(TableName=table, Item=item)
    return api_key


def _watch_bus(sqs, events, bus):
    """Sends every event of the bus to a queue, as a subscriber's rule would."""
    queue_url = sqs.create_queue(QueueName=f"{STACK}-demo")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    events.put_rule(
        Name=f"{STACK}-demo",
        EventBusName=bus,
        EventPattern=json.dumps({"source": ["render-relay"]}),
    )
    events.put_targets(
        Rule=f"{STACK}-demo",
        EventBusName=bus,
        Targets=[{"Id": "demo", "Arn": attributes["Attributes"]["QueueArn"]}],
    )
    return queue_url


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["deploy"]:
            json.dump(deploy(json.load(sys.stdin)), sys.stdout)
        case _:
            raise SystemExit(__doc__)
