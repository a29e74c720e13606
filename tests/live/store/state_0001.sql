BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE batches (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	id TEXT NOT NULL,
	owner TEXT NOT NULL,
	endpoint TEXT NOT NULL,
	input_file TEXT NOT NULL,
	completion_window TEXT NOT NULL,
	metadata TEXT NOT NULL,
	output_expires BIGINT NOT NULL,
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	state TEXT NOT NULL,
	model TEXT NOT NULL,
	total INTEGER NOT NULL,
	done INTEGER NOT NULL,
	failed INTEGER NOT NULL,
	prompt_tokens BIGINT NOT NULL,
	cached_tokens BIGINT NOT NULL,
	output_tokens BIGINT NOT NULL,
	reasoning_tokens BIGINT NOT NULL,
	errors TEXT NOT NULL,
	output_file TEXT,
	error_file TEXT,
	stamps TEXT NOT NULL,
	UNIQUE (id)
);
INSERT INTO "batches" VALUES(1,'batch_1','me','/v1/x','file-1','24h','{"a":"b"}',3600,1001,1000000000000000,'in_progress','m',3,1,0,1,0,2,0,'[]',NULL,NULL,'{"in_progress":2000}');
INSERT INTO "batches" VALUES(2,'batch_2','you','/v1/x','file-1','24h','{"a":"b"}',3600,1002,1000000000000000,'cancelled','m',1,0,1,0,0,0,0,'[]',NULL,NULL,'{"in_progress":2000,"cancelling":3000,"cancelled":4000}');
CREATE TABLE epochs (
	id SMALLINT NOT NULL,
	epoch BIGINT NOT NULL,
	PRIMARY KEY (id)
);
INSERT INTO "epochs" VALUES(1,1);
CREATE TABLE files (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	id TEXT NOT NULL,
	owner TEXT NOT NULL,
	name TEXT NOT NULL,
	purpose TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	expires_at BIGINT,
	size BIGINT NOT NULL,
	ready BOOLEAN NOT NULL,
	UNIQUE (id)
);
INSERT INTO "files" VALUES(1,'file-1','me','n1','batch',1,NULL,20,1);
CREATE TABLE jobs (
	batch BIGINT NOT NULL,
	line INTEGER NOT NULL,
	model TEXT NOT NULL,
	state SMALLINT NOT NULL,
	deadline BIGINT NOT NULL,
	epoch BIGINT NOT NULL,
	attempts INTEGER NOT NULL,
	custom_id TEXT NOT NULL,
	size INTEGER NOT NULL,
	body BLOB NOT NULL,
	PRIMARY KEY (batch, line)
);
INSERT INTO "jobs" VALUES(1,1,'m',3,1000000000000000,0,0,'c1',2,X'7B7D');
INSERT INTO "jobs" VALUES(1,2,'m',1,1000000000000000,0,0,'c2',2,X'7B7D');
INSERT INTO "jobs" VALUES(1,3,'m',1,1000000000000000,0,0,'c3',2,X'7B7D');
CREATE TABLE pieces (
	file TEXT NOT NULL,
	number INTEGER NOT NULL,
	data BLOB NOT NULL,
	PRIMARY KEY (file, number)
);
INSERT INTO "pieces" VALUES('file-1',0,X'7B22637573746F6D5F6964223A20226331227D0A');
CREATE TABLE results (
	batch BIGINT NOT NULL,
	line INTEGER NOT NULL,
	good BOOLEAN NOT NULL,
	status SMALLINT NOT NULL,
	request_id TEXT NOT NULL,
	body BLOB NOT NULL,
	error TEXT NOT NULL,
	PRIMARY KEY (batch, line)
);
INSERT INTO "results" VALUES(1,1,1,200,'r',X'7B2274657874223A20226B657074227D','');
CREATE INDEX files_by_owner ON files (owner, number);
CREATE INDEX files_by_end ON files (expires_at);
CREATE INDEX batches_by_owner ON batches (owner, number);
CREATE INDEX batches_by_state ON batches (state);
CREATE INDEX jobs_by_deadline ON jobs (model, state, deadline, batch, line);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('files',1);
INSERT INTO "sqlite_sequence" VALUES('batches',2);
COMMIT;
