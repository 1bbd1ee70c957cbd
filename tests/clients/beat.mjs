// Heartbeats over https.Agent of Node, or, with CLIENT=fetch, over fetch. Arguments: see
// tests/black_box/libraries.rs.
import { readFileSync } from "node:fs";
import https from "node:https";
import { setTimeout as sleep } from "node:timers/promises";

const given = process.env;
const url = `https://${given.AUTHORITY}/api/license/session/heartbeat`;
const headers = { "X-API-Key": given.API_KEY, "Content-Type": "application/json" };
const agent = new https.Agent({ keepAlive: true, ca: readFileSync(given.CA_FILE) });

const byAgent = () =>
  new Promise((resolve, reject) => {
    const request = https.request(url, { method: "POST", headers, agent, timeout: 30000 }, (answer) => {
      answer.resume();
      answer.on("end", () => resolve(answer.statusCode));
      answer.on("error", reject);
    });
    request.on("error", reject);
    request.end(given.BODY);
  });

const byFetch = async () => {
  const answer = await fetch(url, { method: "POST", headers, body: given.BODY });
  await answer.text();
  return answer.status;
};

const beat = given.CLIENT === "fetch" ? byFetch : byAgent;
for (let number = 0; number < Number(given.BEATS); number++) {
  if (number > 0) await sleep(Number(given.INTERVAL) * 1000);
  try {
    console.log(await beat());
  } catch (fault) {
    console.log(fault.cause?.code ?? fault.code ?? fault.name);
  }
}
agent.destroy();
