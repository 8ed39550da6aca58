"""The protocol stacks, a module each, and the contract that they keep. Modules with an underscore are parts of them."""
