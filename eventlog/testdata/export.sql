-- peer event export · schema peer.event/v1
BEGIN;
CREATE TABLE IF NOT EXISTS sync_event_log (
  device_id TEXT NOT NULL, seq INTEGER NOT NULL, timestamp TEXT NOT NULL, hlc TEXT NOT NULL,
  boot_id TEXT NOT NULL, device_name TEXT, event_type TEXT NOT NULL, category TEXT NOT NULL, severity TEXT NOT NULL,
  summary TEXT NOT NULL, details TEXT, correlation_id TEXT, caused_by TEXT, peer_device_id TEXT,
  model_types TEXT, record_count INTEGER, duration_ms INTEGER,
  PRIMARY KEY (device_id, seq)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idx_sync_event_log_timestamp   ON sync_event_log(timestamp);
CREATE INDEX IF NOT EXISTS idx_sync_event_log_type        ON sync_event_log(event_type);
CREATE INDEX IF NOT EXISTS idx_sync_event_log_correlation ON sync_event_log(correlation_id);
INSERT OR IGNORE INTO sync_event_log VALUES('12D3KooWLaptop',1,'2026-03-01T10:00:00.000000000Z','019ca8d72d000000','b1','laptop','backfill_session_started','lifecycle','info','it''s started','{"chosen":"nas"}','0199a4d2-7c11-7d3e-8a55-0123456789ab',NULL,'12D3KooWNas','entry,tag',NULL,NULL);
INSERT OR IGNORE INTO sync_event_log VALUES('12D3KooWLaptop',2,'2026-03-01T10:00:01.500000000Z','019ca8d72d000001','b1','laptop','batch_ingestion','data_flow','debug','live: 160 records (150 entry, 10 tag)','{"per_model":{"entry":150,"tag":10}}',NULL,'12D3KooWNas/7',NULL,NULL,160,28);
INSERT OR IGNORE INTO sync_event_log VALUES('12D3KooWLaptop',3,'2026-03-01T11:00:00.000000000Z','019ca90e1b800000','b1','laptop','sync_error','error','error','=cmd|`x` <b>\x1b[31m\u202e | \|','{"message":"it''s \u0000"}',NULL,NULL,NULL,NULL,NULL,NULL);
COMMIT;
