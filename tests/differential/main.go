// Command differential answers with the API server's own RequestInfo.
//
// It reads JSON lines {"method","url"} and writes each of them back with "info", or with "error" where Go's
// HTTP server or the API server would refuse the request. The gateway's answers are compared with these.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/klog/v2"
)

type answer struct {
	Method string `json:"method"`
	URL    string `json:"url"`
	Info   *info  `json:"info,omitempty"`
	Error  string `json:"error,omitempty"`
}

type info struct {
	IsResourceRequest bool     `json:"isResourceRequest,omitempty"`
	Path              string   `json:"path,omitempty"`
	Verb              string   `json:"verb,omitempty"`
	APIPrefix         string   `json:"apiPrefix,omitempty"`
	APIGroup          string   `json:"apiGroup,omitempty"`
	APIVersion        string   `json:"apiVersion,omitempty"`
	Namespace         string   `json:"namespace,omitempty"`
	Resource          string   `json:"resource,omitempty"`
	Subresource       string   `json:"subresource,omitempty"`
	Name              string   `json:"name,omitempty"`
	Parts             []string `json:"parts,omitempty"`
	FieldSelector     string   `json:"fieldSelector,omitempty"`
	LabelSelector     string   `json:"labelSelector,omitempty"`
}

// lineBytesMax bounds one request; a longer line ends the program with an error.
const lineBytesMax = 1 << 20

func main() {
	// klog's lines about undecodable options are cases here, not problems.
	klog.SetLogger(logr.Discard())
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "differential:", err)
		os.Exit(2)
	}
}

func run() error {
	factory := &request.RequestInfoFactory{
		APIPrefixes:          sets.NewString("api", "apis"),
		GrouplessAPIPrefixes: sets.NewString("api"),
	}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 0, 64*1024), lineBytesMax)
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for in.Scan() {
		var asked answer
		if err := json.Unmarshal(in.Bytes(), &asked); err != nil {
			return fmt.Errorf("parse %q: %w", in.Text(), err)
		}
		if err := encoder.Encode(answerTo(factory, asked)); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return err
	}
	return out.Flush()
}

func answerTo(factory *request.RequestInfoFactory, asked answer) answer {
	text := asked.Method + " " + asked.URL + " HTTP/1.1\r\nHost: localhost\r\n\r\n"
	parsed, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
	if err != nil {
		asked.Error = err.Error()
		return asked
	}
	got, err := factory.NewRequestInfo(parsed)
	if err != nil {
		asked.Error = err.Error()
		return asked
	}
	asked.Info = &info{
		IsResourceRequest: got.IsResourceRequest,
		Path:              got.Path,
		Verb:              got.Verb,
		APIPrefix:         got.APIPrefix,
		APIGroup:          got.APIGroup,
		APIVersion:        got.APIVersion,
		Namespace:         got.Namespace,
		Resource:          got.Resource,
		Subresource:       got.Subresource,
		Name:              got.Name,
		Parts:             got.Parts,
		FieldSelector:     got.FieldSelector,
		LabelSelector:     got.LabelSelector,
	}
	return asked
}
