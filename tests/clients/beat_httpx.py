"""Heartbeats over one client of httpx that drops no idle connection by itself, or, with POOL=shipped, as httpx
comes. Arguments: see tests/black_box/libraries.rs."""
import os, ssl, time
import httpx

url = "https://" + os.environ["AUTHORITY"] + "/api/license/session/heartbeat"
trust = ssl.create_default_context(cafile=os.environ["CA_FILE"])
limits = httpx.Limits() if os.environ.get("POOL") == "shipped" else httpx.Limits(keepalive_expiry=None)
client = httpx.Client(verify=trust, limits=limits, timeout=30, trust_env=False)
headers = {"X-API-Key": os.environ["API_KEY"], "Content-Type": "application/json"}
for number in range(int(os.environ["BEATS"])):
    if number:
        time.sleep(float(os.environ["INTERVAL"]))
    try:
        print(client.post(url, content=os.environ["BODY"], headers=headers).status_code, flush=True)
    except Exception as fault:
        print(type(fault).__name__, flush=True)
