"""Everything small and transactional: sorted rows in families, atomic batches, one durability barrier."""
