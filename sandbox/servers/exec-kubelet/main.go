// The part of a kubelet that `kubectl exec` needs: it runs the command on this machine, without a container.
package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

type runner struct{}

func (runner) ExecInContainer(
	ctx context.Context, _, _, _ string, words []string, in io.Reader, out, errs io.WriteCloser, tty bool,
	sizes <-chan remotecommand.TerminalSize, _ time.Duration,
) error {
	go func() {
		for range sizes { // there is no terminal to resize, but the sender waits for a reader
		}
	}()
	command := exec.CommandContext(ctx, words[0], words[1:]...)
	command.Stdout, command.Stderr = out, errs
	if tty {
		command.Stderr = out
	}
	if in != nil {
		// Not command.Stdin: the command's end would then wait for the end of the input.
		pipe, err := command.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(pipe, in)
			_ = pipe.Close() // the client is gone: a shell ends
		}()
	}
	err := command.Run()
	if ended := (&exec.ExitError{}); errors.As(err, &ended) {
		return utilexec.CodeExitError{Err: err, Code: ended.ExitCode()}
	}
	return err
}

func serveExec(response http.ResponseWriter, request *http.Request) {
	options, err := remotecommand.NewOptions(request)
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(
		response, request, runner{}, request.PathValue("pod"), "", request.PathValue("container"),
		request.Form["command"], options, time.Hour, remotecommand.DefaultStreamCreationTimeout,
		remotecommand.SupportedStreamingProtocols,
	)
}

// Arguments: the address to listen on, a certificate and its key.
func main() {
	http.HandleFunc("/exec/{namespace}/{pod}/{container}", serveExec)
	log.Fatal(http.ListenAndServeTLS(os.Args[1], os.Args[2], os.Args[3], nil))
}
