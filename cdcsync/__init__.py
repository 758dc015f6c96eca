"""cdcsync keeps other systems in step with a database."""
