//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs.

use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    alter_configs_request, describe_configs_request::DescribeConfigsResource,
    incremental_alter_configs_request,
};

use crate::wire::{Decode, DecodeError, Reader};

impl Decode for DescribeConfigsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = DescribeConfigsRequest::default();
        request.resources = reader.structures(version)?;
        request.include_synonyms = reader.bool()?;
        if version >= 3 {
            request.include_documentation = reader.bool()?;
        }
        Ok(request)
    }
}

impl Decode for DescribeConfigsResource {
    const BYTES_MIN: usize = 3;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut resource = DescribeConfigsResource::default();
        resource.resource_type = reader.i8()?;
        resource.resource_name = reader.string()?;
        resource.configuration_keys = reader.nullable_array(1, Reader::string)?;
        Ok(resource)
    }
}

impl Decode for AlterConfigsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = AlterConfigsRequest::default();
        request.resources = reader.structures(version)?;
        request.validate_only = reader.bool()?;
        Ok(request)
    }
}

impl Decode for alter_configs_request::AlterConfigsResource {
    const BYTES_MIN: usize = 3;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut resource = alter_configs_request::AlterConfigsResource::default();
        resource.resource_type = reader.i8()?;
        resource.resource_name = reader.string()?;
        resource.configs = reader.structures(version)?;
        Ok(resource)
    }
}

impl Decode for alter_configs_request::AlterableConfig {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut config = alter_configs_request::AlterableConfig::default();
        config.name = reader.string()?;
        config.value = reader.nullable_string()?;
        Ok(config)
    }
}

impl Decode for IncrementalAlterConfigsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = IncrementalAlterConfigsRequest::default();
        request.resources = reader.structures(version)?;
        request.validate_only = reader.bool()?;
        Ok(request)
    }
}

impl Decode for incremental_alter_configs_request::AlterConfigsResource {
    const BYTES_MIN: usize = 3;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut resource = incremental_alter_configs_request::AlterConfigsResource::default();
        resource.resource_type = reader.i8()?;
        resource.resource_name = reader.string()?;
        resource.configs = reader.structures(version)?;
        Ok(resource)
    }
}

impl Decode for incremental_alter_configs_request::AlterableConfig {
    const BYTES_MIN: usize = 3;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut config = incremental_alter_configs_request::AlterableConfig::default();
        config.name = reader.string()?;
        config.config_operation = reader.i8()?;
        config.value = reader.nullable_string()?;
        Ok(config)
    }
}
