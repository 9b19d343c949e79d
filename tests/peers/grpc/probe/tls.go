package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// identity makes the probe a peer on a sidecar's internal port. It presents what it is given and
// believes whatever the other side presents: what is under test is the other side's judgement.
type identity struct{ chain, key *string }

func tlsFlags(flags *flag.FlagSet) identity {
	return identity{
		chain: flags.String("cert", "", "PEM chain to present; turns TLS on"),
		key:   flags.String("key", "", "its PKCS#8 key"),
	}
}

func (i identity) load() *tls.Certificate {
	if *i.chain == "" {
		return nil
	}
	if *i.chain == "none" {
		return &tls.Certificate{}
	}
	pair, err := tls.LoadX509KeyPair(*i.chain, *i.key)
	must(err)
	return &pair
}

func (i identity) client() *tls.Config {
	pair := i.load()
	if pair == nil {
		return nil
	}
	return &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"h2"},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return pair, nil
		},
	}
}

func (i identity) server() *tls.Config {
	pair := i.load()
	if pair == nil {
		return nil
	}
	return &tls.Config{
		Certificates: []tls.Certificate{*pair}, NextProtos: []string{"h2"},
		ClientAuth: tls.RequestClientCert,
	}
}

// runMint signs an SVID shaped as Sentry's are. The issuer is a folder that holds issuer.crt and
// issuer.key, as Sentry writes them; one that is missing is made, with ca.crt, as a foreign root.
func runMint(args []string) {
	flags := flag.NewFlagSet("mint", flag.ExitOnError)
	issuer := flags.String("issuer", "", "folder with issuer.crt and issuer.key; made if absent")
	out := flags.String("out", "", "folder for tls.crt and tls.key")
	id := flags.String("id", "spiffe://public/ns/default/app", "SPIFFE id")
	from := flags.Duration("from", -15*time.Minute, "start of validity, relative to now")
	until := flags.Duration("until", time.Hour, "end of validity, relative to now")
	flags.Parse(args)
	if *issuer == "" {
		fail("mint needs -issuer")
	}
	if _, err := os.Stat(filepath.Join(*issuer, "issuer.key")); errors.Is(err, os.ErrNotExist) {
		makeIssuer(*issuer)
	}
	if *out == "" {
		return
	}
	must(os.MkdirAll(*out, 0o700))
	pair, err := tls.LoadX509KeyPair(
		filepath.Join(*issuer, "issuer.crt"), filepath.Join(*issuer, "issuer.key"))
	must(err)
	parent, err := x509.ParseCertificate(pair.Certificate[0])
	must(err)
	uri, err := url.Parse(*id)
	must(err)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	leaf := &x509.Certificate{
		SerialNumber: serial(), URIs: []*url.URL{uri},
		NotBefore: time.Now().Add(*from), NotAfter: time.Now().Add(*until),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, public, pair.PrivateKey)
	must(err)
	chain := append([][]byte{der}, pair.Certificate...)
	writePair(*out, "tls", chain, private)
}

func makeIssuer(dir string) {
	must(os.MkdirAll(dir, 0o700))
	rootPublic, rootKey, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	root := authority("localhost")
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootPublic, rootKey)
	must(err)
	public, key, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	issuer := authority("spiffe://localhost/ns/default/dapr-sentry")
	der, err := x509.CreateCertificate(rand.Reader, issuer, root, public, rootKey)
	must(err)
	writeChain(filepath.Join(dir, "ca.crt"), [][]byte{rootDER})
	writePair(dir, "issuer", [][]byte{der}, key)
}

func authority(organization string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{Organization: []string{organization}},
		NotBefore: time.Now().Add(-15 * time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	must(err)
	return n
}

func writePair(dir, name string, chain [][]byte, key ed25519.PrivateKey) {
	writeChain(filepath.Join(dir, name+".crt"), chain)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	block := &pem.Block{Type: "PRIVATE KEY", Bytes: der}
	must(os.WriteFile(filepath.Join(dir, name+".key"), pem.EncodeToMemory(block), 0o600))
}

func writeChain(path string, chain [][]byte) {
	var text []byte
	for _, der := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	must(os.WriteFile(path, text, 0o600))
}
