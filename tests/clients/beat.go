// Heartbeats over one http.Client of Go that drops no idle connection by itself. Arguments: see
// tests/black_box/libraries.rs.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	pem, err := os.ReadFile(os.Getenv("CA_FILE"))
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
	}
	url := "https://" + os.Getenv("AUTHORITY") + "/api/license/session/heartbeat"
	interval, _ := strconv.ParseFloat(os.Getenv("INTERVAL"), 64)
	beats, _ := strconv.Atoi(os.Getenv("BEATS"))
	for number := 0; number < beats; number++ {
		if number > 0 {
			time.Sleep(time.Duration(interval * float64(time.Second)))
		}
		request, _ := http.NewRequest("POST", url, strings.NewReader(os.Getenv("BODY")))
		request.Header.Set("X-API-Key", os.Getenv("API_KEY"))
		request.Header.Set("Content-Type", "application/json")
		answer, err := client.Do(request)
		if err != nil {
			fmt.Println(strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
		fmt.Println(answer.StatusCode)
	}
}
