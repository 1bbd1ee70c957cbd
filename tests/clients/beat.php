<?php
// Heartbeats over one kept handle of cURL. Arguments: see tests/black_box/libraries.rs.
$handle = curl_init("https://" . getenv("AUTHORITY") . "/api/license/session/heartbeat");
curl_setopt_array($handle, [
    CURLOPT_CAINFO => getenv("CA_FILE"),
    CURLOPT_POSTFIELDS => getenv("BODY"),
    CURLOPT_HTTPHEADER => ["X-API-Key: " . getenv("API_KEY"), "Content-Type: application/json"],
    CURLOPT_RETURNTRANSFER => true,
    CURLOPT_TIMEOUT => 30,
]);
for ($number = 0; $number < (int) getenv("BEATS"); $number++) {
    if ($number > 0) {
        usleep((int) round((float) getenv("INTERVAL") * 1e6));
    }
    if (curl_exec($handle) === false) {
        echo str_replace("\n", " ", curl_error($handle)), "\n";
    } else {
        echo curl_getinfo($handle, CURLINFO_RESPONSE_CODE), "\n";
    }
    flush();
}
