"""What a check does in a process of its own, so that a client that waits for ever can be given up.

``child.py VERB`` takes its job as one line of JSON on stdin and gives its result as the last line of stdout.
"""

import datetime
import json
import sys
from contextlib import suppress

from botocore.exceptions import ClientError

DATASET = 69289763
# Blocks small enough that a build is many tasks, and can be met in the middle.
OPTIONS = {"resolution": 100, "chunk": 16}


def build(job):
    """Build to a target; at the block `pause_at`, say so and go on at a further line of stdin."""
    import atlaszarr
    from atlaszarr.errors import AtlaszarrError

    def pause(done, *_):
        if done == job.get("pause_at"):
            print("paused", flush=True)
            sys.stdin.readline()

    with atlaszarr.AllenClient(job["api_url"], cache="none", rate=1e9) as client:
        try:
            report = atlaszarr.build(
                DATASET,
                job["target"],
                client=client,
                storage_options=job["storage_options"],
                progress=pause,
                **OPTIONS,
            )
        except AtlaszarrError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 1
    print(json.dumps(report.to_dict()))
    return 0 if report.ok else 1


def create_with_s3fs(job):
    """Create one key twice, exclusively; then say what became of the second and what the key holds."""
    import s3fs

    store = s3fs.S3FileSystem(**job["storage_options"])
    store.pipe_file(job["key"], b"first", mode="create")
    told = "nothing was raised"
    try:
        store.pipe_file(job["key"], b"second", mode="create")
    except Exception as error:
        told = f"{_name(error)} (errno {getattr(error, 'errno', None)})"
    print(json.dumps({"second": told, "holds": store.cat_file(job["key"]).decode()}))
    return 0


def create_with_obstore(job):
    """The same with obstore."""
    import obstore

    options, (bucket, key) = job["storage_options"], job["key"].split("/", 1)
    store = obstore.store.S3Store(
        bucket,
        aws_access_key_id=options["key"],
        aws_secret_access_key=options["secret"],
        aws_endpoint=options["endpoint_url"],
        aws_region=options["client_kwargs"]["region_name"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    obstore.put(store, key, b"first", mode="create")
    told = "nothing was raised"
    try:
        obstore.put(store, key, b"second", mode="create")
    except Exception as error:
        told = _name(error)
    print(json.dumps({"second": told, "holds": bytes(obstore.get(store, key).bytes()).decode()}))
    return 0


def put_with_a_slow_clock(job):
    """Put some objects by a clock that is minutes slow, and give the times before, of the object, and after."""
    import boto3
    import botocore.auth

    now = botocore.auth.get_current_datetime
    botocore.auth.get_current_datetime = lambda *args, **kwargs: now(*args, **kwargs) - datetime.timedelta(minutes=5)
    options, (bucket, prefix) = job["storage_options"], job["key"].split("/", 1)
    s3 = boto3.client(
        "s3",
        endpoint_url=options["endpoint_url"],
        aws_access_key_id=options["key"],
        aws_secret_access_key=options["secret"],
        **options["client_kwargs"],
    )
    with suppress(ClientError):
        s3.head_object(Bucket=bucket, Key=f"{prefix}-warm")
    times = []
    for index in range(job["count"]):
        key = f"{prefix}-{index}"
        before = _utc()
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
        after = _utc()
        headed = s3.head_object(Bucket=bucket, Key=key)["LastModified"]
        (listed,) = (item["LastModified"] for item in s3.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"])
        times.append([before, headed.timestamp(), listed.timestamp(), after])
    print(json.dumps(times))
    return 0


def _utc():
    return datetime.datetime.now(datetime.UTC).timestamp()


def _name(error):
    return f"{type(error).__module__}.{type(error).__name__}".removeprefix("builtins.")


VERBS = {
    function.__name__: function for function in (build, create_with_s3fs, create_with_obstore, put_with_a_slow_clock)
}

if __name__ == "__main__":
    sys.exit(VERBS[sys.argv[1]](json.loads(sys.stdin.readline())))
