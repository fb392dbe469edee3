"""Where the rows of an index lie: folders, faiss over them, tables of LanceDB."""
