"""Archive formats: verification, conversion, and inventories of members."""
