package sanity

import (
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/routeros"
	"github.com/rds-csi/rds-csi/internal/sim/simtest"
)

const (
	// RDS is the name of the one appliance.
	RDS = "rds1"
	// Address is where its exports are reached, in the guest.
	Address = "127.0.0.1"
)

// Connect is the driver's view of a simulated RDS, over real SSH.
func Connect(t *testing.T, server *simtest.Server, cluster string) *appliance.RDS {
	t.Helper()
	pin, err := routeros.Fingerprint(server.HostKeyFingerprint)
	if err != nil {
		t.Fatal(err)
	}
	client, err := routeros.New(routeros.Config{
		Name: RDS, Address: server.Address, User: "csi", Signers: []ssh.Signer{server.Signer}, HostKey: pin,
	})
	if err != nil {
		t.Fatal(err)
	}
	client.Start(t.Context())
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	pool, err := appliance.ParsePath("/storage-pool/k8s")
	if err != nil {
		t.Fatal(err)
	}
	rds, err := appliance.NewRDS(appliance.Settings{
		Name: RDS, Default: true, ClusterID: cluster, Pool: pool, NVMeAddress: Address, NVMePort: 4420,
	}, client)
	if err != nil {
		t.Fatal(err)
	}
	return rds
}

// canonical is the form of a handle that the ledger is keyed by.
func canonical(handle string) string {
	id, err := appliance.ParseID(handle, RDS)
	if err != nil {
		return handle
	}
	return id.Key()
}
