"""What goes wrong outside of us: crashes, full disks, networks that lose answers, hostile bytes."""
