"""From what is wanted to an established Flow: gathering candidates, ranking them, racing them (RFC 9623 section 4).

This floor stands between the public face and the protocol stacks. It knows stacks by the contract and the feature
table only, and knows nothing of Connections.
"""
