package pki

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// Step is one of the three of a rotation. Between two steps every node must have got the files of the one before: at
// each moment, nodes that have taken a step and nodes that have not understand each other.
type Step string

// The steps, in order.
const (
	StepAdd    Step = "add"    // the new one is trusted beside the old
	StepUse    Step = "use"    // the new one is used
	StepRemove Step = "remove" // the old one is trusted no longer
)

// Authorities are the certificates of ca.crt, checked to be those of authorities of one cluster.
func (f Folder) Authorities() ([]*x509.Certificate, error) {
	cas, err := Certificates(f.file(caCert))
	if err != nil {
		return nil, err
	}
	for _, c := range cas {
		if err := checkCA(c); err != nil {
			return nil, fmt.Errorf("%s: %w", f.file(caCert), err)
		}
		if c.URIs[0].Host != cas[0].URIs[0].Host {
			return nil, fmt.Errorf("%s holds authorities of cluster %q and of cluster %q: one cluster's are wanted", f.file(caCert), cas[0].URIs[0].Host, c.URIs[0].Host)
		}
	}
	return cas, nil
}

// NextCA is the step of a CA rotation that comes next.
func (f Folder) NextCA() (Step, error) {
	cas, err := f.Authorities()
	switch {
	case err != nil:
		return "", err
	case len(cas) == 1:
		return StepAdd, nil // a ca-next.key without its certificate was left by an add that was cut short
	case f.exists(caNextKey):
		return StepUse, nil
	}
	return StepRemove, nil
}

// RotateCA takes one step and says which certificates it made anew: use makes all of them, signed by the new CA, valid
// for the given time; add makes a CA valid for it. A step that was cut short can be taken again.
func (f Folder) RotateCA(step Step, valid time.Duration) (reissued []string, err error) {
	limit := maxLeaf
	if step == StepAdd {
		limit = maxCA
	}
	if err := checkValid(valid, limit); err != nil {
		return nil, err
	}
	err = f.locked(func() error {
		next, err := f.NextCA()
		if err != nil {
			return err
		}
		if step != next {
			return fmt.Errorf("%w: `rotate ca %s`: next is `ha-admin pki rotate ca %s`", ErrStep, step, next)
		}
		cas, err := f.Authorities()
		if err != nil {
			return err
		}
		switch step {
		case StepAdd:
			return f.addCA(cas, valid)
		case StepUse:
			reissued, err = f.useCA(cas, valid)
			return err
		case StepRemove:
			return f.removeCA()
		}
		return fmt.Errorf("%w: step %q: add, use or remove is wanted", ErrUsage, step)
	})
	return reissued, err
}

func (f Folder) addCA(cas []*x509.Certificate, valid time.Duration) error {
	if _, err := f.authority(); err != nil {
		return err
	}
	ca, err := newCA(cas[0].URIs[0].Host, f.now(), valid)
	if err != nil {
		return err
	}
	return f.replace(content{caNextKey, ca.keyPEM, 0o600}, content{caCert, append(encode(cas), ca.certPEM...), 0o644})
}

// useCA puts the key in its place first: from then on the new CA signs, whatever happens.
func (f Folder) useCA(cas []*x509.Certificate, valid time.Duration) ([]string, error) {
	key, err := PrivateKey(f.file(caNextKey))
	if err != nil {
		return nil, err
	}
	next := cas[len(cas)-1]
	if !fits(next, key) {
		return nil, fmt.Errorf("%s does not belong to the last certificate of %s: the two are of different folders", f.file(caNextKey), f.file(caCert))
	}
	if f.now().Add(valid).After(next.NotAfter) {
		return nil, fmt.Errorf("%w: certificates valid for %v would outlive the new CA, which ends %s: a shorter --valid is wanted", ErrUsage, valid, next.NotAfter.UTC().Format(time.RFC3339))
	}
	if err := errors.Join(os.Rename(f.file(caNextKey), f.file(caKey)), syncFolder(f.Path)); err != nil {
		return nil, err
	}
	order := append([]*x509.Certificate{next}, cas[:len(cas)-1]...)
	if err := f.replace(content{caCert, encode(order), 0o644}); err != nil {
		return nil, err
	}
	return f.reissue(nil, valid)
}

// removeCA refuses while a certificate of the folder still hangs on the old CA.
func (f Folder) removeCA() error {
	ca, err := f.authority()
	if err != nil {
		return err
	}
	leaves, err := f.Leaves()
	if err != nil {
		return err
	}
	for _, l := range leaves {
		if l.Cert.CheckSignatureFrom(ca.cert) != nil {
			return fmt.Errorf("%w: %s.crt is signed by the old CA: run `ha-admin pki rotate certs %s` and take it to its place first", ErrStep, l.File, l.File)
		}
	}
	return f.replace(content{caCert, encode([]*x509.Certificate{ca.cert}), 0o644})
}

func encode(cas []*x509.Certificate) (b []byte) {
	for _, c := range cas {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: c.Raw})...)
	}
	return b
}
