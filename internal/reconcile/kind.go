package reconcile

// Kind is one way in which Kubernetes, the nodes and an RDS contradict each
// other. It is the label of the metric; docs/architecture.md has the table.
type Kind string

// The kinds.
const (
	// NodeGone is a VolumeAttachment whose Node object is gone, or is another one of the same name.
	NodeGone Kind = "node_gone"
	// VolumeGone is an attached volume that a complete list of its RDS does not have.
	VolumeGone Kind = "volume_gone"
	// ExportLost is an attached volume that its RDS does not export (any more). It is repaired.
	ExportLost Kind = "export_lost"
	// MountedOnRDS is an attached volume that the RDS itself has mounted: a second writer.
	MountedOnRDS Kind = "mounted_on_rds"
	// VolumeForeign is an attached volume in whose slot its RDS has an item that does not name this cluster.
	VolumeForeign Kind = "volume_foreign"
	// InUseUnattached is a volume that a kubelet has mounted, proven by what was seen before, and that no VolumeAttachment puts there.
	InUseUnattached Kind = "in_use_unattached"
	// Unresolved is a VolumeAttachment of which Kubernetes and the configuration do not tell which volume it means.
	Unresolved Kind = "unresolved"
	// MigrationOverdue is a volume that two nodes have for longer than its migration may take.
	MigrationOverdue Kind = "migration_overdue"

	// orphan is a volume of this cluster that no PersistentVolume names: no drift between attachments, it has a metric of its own.
	orphan Kind = "orphan"
	// inUseUnproven is what a kubelet named before this process listened, and no VolumeAttachment puts there: mounted, or waited for. It is no
	// finding that counts, but nobody can say either that there is none.
	inUseUnproven Kind = "in_use_unproven"
)

// Kinds are all of them.
func Kinds() []Kind {
	return []Kind{NodeGone, VolumeGone, VolumeForeign, ExportLost, MountedOnRDS, InUseUnattached, Unresolved, MigrationOverdue}
}

// byRDS says whether it takes a look at the RDS to find one, and so to know that there is none.
func (k Kind) byRDS() bool {
	return k == VolumeGone || k == VolumeForeign || k == ExportLost || k == MountedOnRDS || k == orphan
}

// atOnce says whether a finding counts without a grace time: a migration had its
// own, the deadline.
func (k Kind) atOnce() bool { return k == MigrationOverdue }

// nextStep is what a person may do without losing data.
func (k Kind) nextStep() string {
	switch k {
	case NodeGone:
		return "make sure that the machine is off or has let go of the volume, then let its pods be deleted; " +
			"the attach/detach controller detaches what no pod needs"
	case VolumeGone:
		return "do not delete anything yet: look on the rds for the disk item and for its image file, and put the item back if the file is there"
	case ExportLost:
		return "nothing: the driver exports it again, once; if it is lost again, find out who or what takes it away"
	case MountedOnRDS:
		return "stop the pod, then set mount-filesystem=no on the rds and check the file system before it is used again: two writers destroy it"
	case VolumeForeign:
		return "look at the comment of the disk item: a word before it fences the volume on purpose, take it away to give the volume back; " +
			"else compare clusterID in the configuration with the comment; no node gets the volume until then"
	case InUseUnattached:
		return "let that kubelet unmount it: bring it back, or delete the pod there that uses it; until then no other node gets the volume; " +
			"only if the machine is off for good, taint the node node.kubernetes.io/out-of-service"
	case inUseUnproven:
		return "look whether that node has it mounted, or a pod there only waits for it; until the kubelet speaks of it no more, no other node gets the volume"
	case Unresolved:
		return "restore the PersistentVolume it names, or rds in the configuration; " +
			"if the volume is really gone, delete the VolumeAttachment once no node uses it"
	case MigrationOverdue:
		return "finish or cancel the migration of the virtual machine; while it lasts two nodes may write"
	case orphan:
		return "look whether anybody still needs it; what is garbage can be deleted by a PersistentVolume made for its handle, with reclaim policy Delete"
	default:
		return "look into it"
	}
}
