"""Networks of others as backbones, to compare with: trained whole by ``fit``, run by ``segment`` as any model."""
