"""PostgreSQL: reads its WAL through pgoutput, writes with COPY and prepared statements, keeps positions."""
