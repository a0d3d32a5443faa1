package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// credentials are the files that the API server starts with.
type credentials struct {
	ca         string // certificate that signed the serving one
	serving    string // certificate
	servingKey string
	accountKey string // signs the tokens of service accounts
	tokens     string // user names by token
	byUser     map[string]string
}

// The users of the token file. Everybody else is a service account, whose token the API server issues.
const (
	adminUser      = "admin"
	managerUser    = "system:kube-controller-manager"
	schedulerUser  = "system:kube-scheduler"
	administrators = "system:masters"
)

func makeCredentials(dir string) (credentials, error) {
	in := func(name string) string { return filepath.Join(dir, name) }
	c := credentials{
		ca: in("ca.crt"), serving: in("serving.crt"), servingKey: in("serving.key"),
		accountKey: in("accounts.key"), tokens: in("tokens.csv"), byUser: map[string]string{},
	}
	account, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return c, err
	}
	return c, errors.Join(
		writePEM(c.accountKey, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(account)),
		c.writeCertificates(),
		c.writeTokens(),
	)
}

func (c credentials) writeTokens() error {
	var text string
	for user, group := range map[string]string{adminUser: administrators, managerUser: "", schedulerUser: ""} {
		secret := make([]byte, 16)
		if _, err := rand.Read(secret); err != nil {
			return err
		}
		c.byUser[user] = hex.EncodeToString(secret)
		text += fmt.Sprintf("%s,%s,%s,%q\n", c.byUser[user], user, user, group)
	}
	return os.WriteFile(c.tokens, []byte(text), 0o600)
}

// writeCertificates makes an authority of one certificate, for the loopback address.
func (c credentials) writeCertificates() error {
	now := time.Now().Add(-time.Hour)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cluster test"}, NotBefore: now, NotAfter: now.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serving := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-apiserver"}, NotBefore: now, NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost", "kubernetes"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	root, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		return err
	}
	leaf, err := x509.CreateCertificate(rand.Reader, serving, authority, key.Public(), authorityKey)
	if err != nil {
		return err
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		writePEM(c.ca, "CERTIFICATE", root), writePEM(c.serving, "CERTIFICATE", leaf), writePEM(c.servingKey, "EC PRIVATE KEY", private),
	)
}

func writePEM(file, kind string, data []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600)
}

// config is a client's way in: to an address that leads to the API server, as the bearer of a token.
func (c credentials) config(address, token string) *rest.Config {
	return &rest.Config{
		Host: "https://" + address, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAFile: c.ca},
		QPS: 200, Burst: 400,
	}
}

// writeKubeconfig is the same as a file.
func (c credentials) writeKubeconfig(file, address, token string) error {
	const name = "test"
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters[name] = &clientcmdapi.Cluster{Server: "https://" + address, CertificateAuthority: c.ca}
	cfg.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	cfg.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	cfg.CurrentContext = name
	return clientcmd.WriteToFile(*cfg, file)
}
