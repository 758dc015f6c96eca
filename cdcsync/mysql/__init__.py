"""MySQL and MariaDB: reads the binlog, writes rows, keeps positions."""
