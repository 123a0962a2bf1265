// Command chunked writes a layer in the form of zstd:chunked or eStargz, with the code of those who made these forms:
//
//	chunked FORM TAR BLOB
//
// FORM is zstd-chunked, estargz, or estargz-lossless, which leaves the tar as it is (BuildKit). It prints the annotations of the layer's descriptor as one JSON object.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containers/storage/pkg/chunked/compressor"
)

// Zstandard's own default.
var level = 3

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: chunked zstd-chunked|estargz|estargz-lossless TAR BLOB")
	}
	write := map[string]func(io.Reader, io.Writer) (map[string]string, error){
		"zstd-chunked":     zstdChunked,
		"estargz":          eStargz((*estargz.Writer).AppendTar),
		"estargz-lossless": eStargz((*estargz.Writer).AppendTarLossLess),
	}[args[0]]
	if write == nil {
		return fmt.Errorf("no such form: %s", args[0])
	}
	tar, err := os.Open(args[1])
	if err != nil {
		return err
	}
	defer tar.Close()
	blob, err := os.Create(args[2])
	if err != nil {
		return err
	}
	annotations, err := write(tar, blob)
	if err != nil {
		return err
	}
	if err := blob.Close(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(annotations)
}

func zstdChunked(tar io.Reader, blob io.Writer) (map[string]string, error) {
	annotations := map[string]string{}
	writer, err := compressor.ZstdCompressor(blob, annotations, &level)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(writer, tar); err != nil {
		return nil, err
	}
	return annotations, writer.Close()
}

func eStargz(add func(*estargz.Writer, io.Reader) error) func(io.Reader, io.Writer) (map[string]string, error) {
	return func(tar io.Reader, blob io.Writer) (map[string]string, error) {
		writer := estargz.NewWriter(blob)
		if err := add(writer, tar); err != nil {
			return nil, err
		}
		digest, err := writer.Close()
		if err != nil {
			return nil, err
		}
		return map[string]string{estargz.TOCJSONDigestAnnotation: digest.String()}, nil
	}
}
