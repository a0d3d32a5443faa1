package metrics

// Attachments registers rds_csi_nvme_connections_active: on the controller only,
// and only where Kubernetes is the authority. The function asks the ledger at
// scrape; it must answer from memory, in constant time. Nothing is held here, so a
// restart cannot falsify it.
func Attachments(reg *Registry, volumes func() (n int, known bool)) error {
	const name = "rds_csi_nvme_connections_active"
	return reg.ledBy(name, newGauges(name,
		"Volumes with at least one attached VolumeAttachment; a migrating volume counts once. "+
			"Absent while the attachments are not known.", nil,
		func(show func(float64, ...string)) {
			if n, known := volumes(); known {
				show(float64(n))
			}
		}))
}

// NodeAttachments registers rds_csi_volume_attachments. The map is read, never
// changed, and must not be changed by anybody else.
func NodeAttachments(reg *Registry, perNode func() (volumes map[string]int, known bool)) error {
	const name = "rds_csi_volume_attachments"
	return reg.ledBy(name, newGauges(name,
		"Volumes attached to each node; a migrating volume counts on both.", []string{"node"},
		func(show func(float64, ...string)) {
			volumes, known := perNode()
			if !known {
				return
			}
			for node, n := range volumes {
				show(float64(n), node)
			}
		}))
}
