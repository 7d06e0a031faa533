data_path = "no folder"
