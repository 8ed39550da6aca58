"""The floor that touches the kernel: sockets, their options, interfaces. It knows no stack and no Connection."""
