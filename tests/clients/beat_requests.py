"""Heartbeats over one session of requests. Arguments: see tests/black_box/libraries.rs."""
import os, time
import requests

url = "https://" + os.environ["AUTHORITY"] + "/api/license/session/heartbeat"
session = requests.Session()
session.verify = os.environ["CA_FILE"]
session.trust_env = False
headers = {"X-API-Key": os.environ["API_KEY"], "Content-Type": "application/json"}
for number in range(int(os.environ["BEATS"])):
    if number:
        time.sleep(float(os.environ["INTERVAL"]))
    try:
        print(session.post(url, data=os.environ["BODY"], headers=headers, timeout=30).status_code, flush=True)
    except Exception as fault:
        print(type(fault).__name__, flush=True)
