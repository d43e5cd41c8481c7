"""Names of the axes that arrays are spread over; both the networks and the training read them here."""

MESH_AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")  # those that share the rows of a batch
