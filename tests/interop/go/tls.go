package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// authority signs certificates for this machine and writes them into its folder.
type authority struct {
	folder      string
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

func newAuthority(folder string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test authority"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &authority{folder, key, certificate}
	return a, a.write("authority.pem", "CERTIFICATE", der)
}

func (a *authority) write(name, kind string, der []byte) error {
	return os.WriteFile(filepath.Join(a.folder, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

func (a *authority) path(name string) string { return filepath.Join(a.folder, name) }

func (a *authority) pair(name string, serial int64, usage x509.ExtKeyUsage) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"server.global.nomad"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:  []x509.ExtKeyUsage{usage},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := a.write(name+".crt", "CERTIFICATE", der); err != nil {
		return err
	}
	return a.write(name+".key", "PRIVATE KEY", text)
}

// overTLS has the SDK ask as its variables say, with a client certificate, and without one in vain.
func overTLS(program string) error {
	folder, err := os.MkdirTemp("", "interop")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	a, err := newAuthority(folder)
	if err != nil {
		return err
	}
	if err := a.pair("server", 2, x509.ExtKeyUsageServerAuth); err != nil {
		return err
	}
	if err := a.pair("client", 3, x509.ExtKeyUsageClientAuth); err != nil {
		return err
	}
	driver := exec.Command(program, "demo", "--driver-only="+a.path("csi.sock"))
	if err := driver.Start(); err != nil {
		return err
	}
	defer func() { _ = driver.Process.Kill(); _ = driver.Wait() }()
	server := exec.Command(program, "serve", "--http-endpoint=127.0.0.1:0",
		"--csi-address=unix://"+a.path("csi.sock"), "--tls-cert-file="+a.path("server.crt"),
		"--tls-key-file="+a.path("server.key"), "--tls-client-ca-file="+a.path("authority.pem"))
	output, err := server.StdoutPipe()
	if err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the gateway ended before it served: %w", err)
	}
	address := strings.TrimSpace(strings.TrimPrefix(line, "listening on "))

	for name, value := range map[string]string{
		"NOMAD_ADDR": address, "NOMAD_CACERT": a.path("authority.pem"),
		"NOMAD_CLIENT_CERT": a.path("client.crt"), "NOMAD_CLIENT_KEY": a.path("client.key"),
		"NOMAD_TLS_SERVER_NAME": "server.global.nomad",
	} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
		defer os.Unsetenv(name)
	}
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		list, _, err := client.CSIPlugins().List(nil)
		if err == nil && len(list) == 1 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("over TLS: %v, %v", list, err)
		}
	}
	held("over TLS, with a client certificate")
	config := api.DefaultConfig()
	config.TLSConfig.ClientCert, config.TLSConfig.ClientKey = "", ""
	nobody, err := api.NewClient(config)
	if err != nil {
		return err
	}
	if _, _, err := nobody.CSIPlugins().List(nil); err == nil || !strings.Contains(err.Error(), "certificate required") {
		return fmt.Errorf("without a client certificate: %v", err)
	}
	held("and without one in vain")
	return nil
}
