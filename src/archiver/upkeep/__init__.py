"""Background work on what is stored: recheck, repair, restore, rebuild, audit."""
