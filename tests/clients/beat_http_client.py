"""Heartbeats over one kept connection of http.client. Arguments: see tests/black_box/libraries.rs."""
import http.client, os, ssl, sys, time

host, port = os.environ["AUTHORITY"].split(":")
trust = ssl.create_default_context(cafile=os.environ["CA_FILE"])
line = http.client.HTTPSConnection(host, int(port), context=trust, timeout=30)
headers = {"X-API-Key": os.environ["API_KEY"], "Content-Type": "application/json"}
for number in range(int(os.environ["BEATS"])):
    if number:
        time.sleep(float(os.environ["INTERVAL"]))
    try:
        line.request("POST", "/api/license/session/heartbeat", os.environ["BODY"], headers)
        answer = line.getresponse()
        answer.read()
        print(answer.status, flush=True)
    except Exception as fault:
        print(type(fault).__name__, flush=True)
        line.close()
