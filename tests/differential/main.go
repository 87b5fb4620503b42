// Command differential answers with the API server's own RequestInfo.
//
// It reads JSON lines {"method","url"} and writes each of them back with "info", or with "error" where Go's
// HTTP server or the API server would refuse the request. Where a request asks for an exec, an attach or a
// port-forward of a pod, "stream" is its query as the API server converts it, or "streamError" why it does not.
// The gateway's answers are compared with these.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/go-logr/logr"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install" // Registers the conversions.
)

type answer struct {
	Method      string  `json:"method"`
	URL         string  `json:"url"`
	Info        *info   `json:"info,omitempty"`
	Error       string  `json:"error,omitempty"`
	Stream      *stream `json:"stream,omitempty"`
	StreamError string  `json:"streamError,omitempty"`
}

// stream has the options of all three kinds.
type stream struct {
	Container string   `json:"container,omitempty"`
	Command   []string `json:"command,omitempty"`
	Stdin     bool     `json:"stdin,omitempty"`
	Stdout    bool     `json:"stdout,omitempty"`
	Stderr    bool     `json:"stderr,omitempty"`
	TTY       bool     `json:"tty,omitempty"`
	Ports     []int32  `json:"ports,omitempty"`
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
	if !got.IsResourceRequest || got.APIGroup != "" || got.Resource != "pods" {
		return asked
	}
	asked.Stream, err = streamOf(got.Subresource, parsed.URL.Query())
	if err != nil {
		asked.StreamError = err.Error()
	}
	return asked
}

// streamOf decodes the query as the API server's connect handler does (endpoints/handlers/rest.go,
// getRequestOptions) into what ExecREST, AttachREST and PortForwardREST ask for.
func streamOf(subresource string, query url.Values) (*stream, error) {
	decode := func(into runtime.Object) error {
		return legacyscheme.ParameterCodec.DecodeParameters(query, v1.SchemeGroupVersion, into)
	}
	switch subresource {
	case "exec":
		options := &core.PodExecOptions{}
		if err := decode(options); err != nil {
			return nil, err
		}
		return &stream{
			Container: options.Container,
			Command:   options.Command,
			Stdin:     options.Stdin,
			Stdout:    options.Stdout,
			Stderr:    options.Stderr,
			TTY:       options.TTY,
		}, nil
	case "attach":
		options := &core.PodAttachOptions{}
		if err := decode(options); err != nil {
			return nil, err
		}
		return &stream{
			Container: options.Container,
			Stdin:     options.Stdin,
			Stdout:    options.Stdout,
			Stderr:    options.Stderr,
			TTY:       options.TTY,
		}, nil
	case "portforward":
		options := &core.PodPortForwardOptions{}
		if err := decode(options); err != nil {
			return nil, err
		}
		return &stream{Ports: options.Ports}, nil
	}
	return nil, nil
}
