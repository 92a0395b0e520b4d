"""How an archive is made: fetched or converted, verified, uploaded and committed."""
