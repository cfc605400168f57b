"""What goes in: files, folders, lists, manifests, objects; and the tracks that become of it."""
